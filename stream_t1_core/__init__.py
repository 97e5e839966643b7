"""Stream-T1: chunk beam search for streaming video models, in plain PyTorch.

Read ``generate.py`` first. Nothing in this package knows ComfyUI.
"""
