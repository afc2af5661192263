# The command albert-hub-bridge, installed from its wheel. `make image` builds the wheel and then this image:
#
#     docker run --rm --network none --volume "$PWD:/work" albert-hub-bridge convert preset my-albert --to transformers
#
# torch comes from PyTorch's index of CPU builds: PyPI's own wheel for Linux brings 3 GB of CUDA libraries along.

FROM python:3.13-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

COPY constraints.txt dist/*.whl /tmp/install/
# The second line finds torch installed, in the version that constraints.txt names, and adds the rest from PyPI.
RUN pip install --no-cache-dir --constraint /tmp/install/constraints.txt --index-url "$TORCH_INDEX" torch \
    && pip install --no-cache-dir --constraint /tmp/install/constraints.txt /tmp/install/*.whl \
    && rm -r /tmp/install

# Folders of the host are mounted at /work. `docker run --user "$(id -u):$(id -g)"` gives the results to their owner.
RUN useradd --create-home --uid 1000 user
USER 1000
ENV HF_HOME=/tmp/huggingface
WORKDIR /work
ENTRYPOINT ["albert-hub-bridge"]
CMD ["--help"]
