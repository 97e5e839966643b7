"""Training sees exactly what streaming sees: teacher forcing equals the cached forward pass."""

import torch

from stream_t1_core.backbone import BackboneShape, WanBackbone
from stream_t1_core.causal_wan import CausalWan
from training.teacher import Lesson, TeacherForcing, TextBatch


def test_teacher_forcing_equals_streaming_with_a_cache():
    torch.manual_seed(0)
    shape = BackboneShape(dim=64, ffn_dim=32, num_layers=2, num_heads=2, text_dim=8, freq_dim=16)
    backbone = WanBackbone(shape).requires_grad_(False)
    clean = torch.randn(1, 4, 16, 3, 4, 4)
    noisy = torch.randn(1, 5, 16, 3, 4, 4)
    timesteps = torch.tensor([[1000.0, 937.5, 833.3, 625.0, 1000.0]])
    prompt = torch.randn(5, 8)

    lesson = Lesson(clean, noisy, timesteps, numbers=(0, 1, 2, 3, 4))
    taught = TeacherForcing(backbone).flow(lesson, TextBatch.of([prompt], shape.text_len))

    model = CausalWan(backbone)
    text = model.encode_text(prompt[None])
    kept = []
    for n in range(5):
        past = model.lay_out(kept, (4, 4))
        flow = model.flow(noisy[:, n], timesteps[0, n].expand(3), 3 * n, text, past)
        assert torch.allclose(taught[:, n], flow, atol=1e-5)
        if n < 4:
            kv = model.context_pass(clean[:, n], torch.zeros(3), 3 * n, text, past)
            kept = [*kept[:1], *kept[1:][-1:], kv]
