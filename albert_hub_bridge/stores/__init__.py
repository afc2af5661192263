"""Where checkpoints live: KerasHub presets and Hub repositories, read into and written from a `Checkpoint`."""
