"""The projected discriminator's head against the official code."""

import pytest

from addsr.discriminators.head import DiscriminatorHead

NAMES = {
    "main.0.0": "conv_in",
    "main.0.1": "norm_in",
    "main.1.fn.0": "conv_mix",
    "main.1.fn.1": "norm_mix",
    "cls": "conv_out",
    "cmapper": "condition",
}


@pytest.fixture
def head(load):
    head = DiscriminatorHead(384, 384, 64)
    weights = load("discriminator_head", "weights")
    head.load_state_dict({f"{NAMES[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in weights.items()})
    return head


def test_in_evaluation(head, load, agrees):
    inputs, outputs = load("discriminator_head", "inputs"), load("discriminator_head", "outputs")
    x = inputs["x"].requires_grad_()
    out = head.eval()(x, inputs["c"])
    agrees(out.detach(), outputs["out_eval"][:, 0])
    out.sum().backward()
    agrees(x.grad, outputs["grad_x_eval"])


def test_in_training_with_one_power_iteration(head, load, agrees):
    inputs, outputs = load("discriminator_head", "inputs"), load("discriminator_head", "outputs")
    agrees(head.train()(inputs["x"], inputs["c"]).detach(), outputs["out_train"][:, 0])
    for theirs, ours in (("main.0.0", head.conv_in), ("main.1.fn.0", head.conv_mix), ("cls", head.conv_out)):
        agrees(ours.weight_u, outputs[f"after_train.{theirs}.weight_u"])
        agrees(ours.weight_v, outputs[f"after_train.{theirs}.weight_v"])
