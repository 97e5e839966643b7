"""What dev.py and the host and browser tests share. No part of the pack: ComfyUI never loads it."""
