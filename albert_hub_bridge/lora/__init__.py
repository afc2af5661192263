"""LoRA adapters of KerasHub and PEFT."""
