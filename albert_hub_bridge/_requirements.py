"""Say which installed libraries are of other versions than this package needs, where an import fails because of them.

pip keeps the versions together, but a later installation into the same environment can change them. An old protobuf,
for one, refuses sentencepiece's module with an error of its own.
"""

from __future__ import annotations


def explain_failed_import() -> str | None:
    """Return a message that names the libraries of other versions, and the command that installs them.

    Returns:
        None if all versions are right, or if this package is not installed: then the error is another one.
    """
    # Not at the top: every start of the command and every `import albert_hub_bridge` imports this module.
    from importlib import metadata

    from packaging.requirements import Requirement

    try:
        declared = [Requirement(line) for line in metadata.requires("albert-hub-bridge") or ()]
    except metadata.PackageNotFoundError:
        return None
    needed = [each for each in declared if each.marker is None or each.marker.evaluate({"extra": ""})]
    installed = {each: _installed_version(each.name) for each in needed}
    unmet = {
        f"{each.name}{each.specifier}": version
        for each, version in installed.items()
        if version is None or not each.specifier.contains(version, prereleases=True)
    }
    if not unmet:
        return None
    lines = [f"  needed {requirement}, found {version or 'none'}" for requirement, version in unmet.items()]
    command = " ".join(["pip install", *(f"'{requirement}'" for requirement in unmet)])
    return "\n".join(
        ["albert-hub-bridge cannot be used with the libraries that are installed:", *lines, f"Run: {command}"]
    )


def _installed_version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
