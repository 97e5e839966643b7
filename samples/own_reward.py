"""An own reward as a node: copy this file into ComfyUI/custom_nodes and restart.

Wire "Redness" into a Reward Pruner or a Reward Mix. Nothing of the pack is imported: a reward is
any object with a `name` that takes clips and returns one number for each. Frames lie where they
were decoded, on a GPU if there is one: `clips.frames.cpu()` before anything but PyTorch reads them.
"""


class Redness:
    name = "redness"

    def __call__(self, clips):
        red, green, blue = clips.frames.unbind(-1)  # [candidates, frames, height, width] each, 0..1
        return 100 * (red - (green + blue) / 2).mean(dim=(1, 2, 3))  # one per candidate


class RednessNode:
    CATEGORY, FUNCTION = "Stream-T1/rewards", "make"
    RETURN_TYPES = ("STREAM_T1_REWARD",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        return (Redness(),)


NODE_CLASS_MAPPINGS = {"RednessReward": RednessNode}
NODE_DISPLAY_NAME_MAPPINGS = {"RednessReward": "Redness"}
