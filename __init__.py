"""ComfyUI-Stream-T1: chunk beam search for streaming video models, as ComfyUI nodes.

Imports nothing of ComfyUI until ComfyUI asks for the nodes, so tests and tools can import it too.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import StreamT1Extension

    return StreamT1Extension()
