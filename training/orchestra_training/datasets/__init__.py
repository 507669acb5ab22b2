"""Data sets for trainers, made of logged runs: SFT, DPO, KTO, GRPO tasks, and exact rows for replay.

    built = build("sft", logs_of("data/"), "sft/")          # a folder with Parquet and a card, as the hub has them

Columns hold tokens as the server read and wrote them, so that no trainer tokenises again. The log is read twice where
runs are compared with each other, and streamed both times.
"""
