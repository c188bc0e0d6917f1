"""What README says of privacy: a server rebuilds images and labels from what it is sent.

Nothing is guessed or trained: with the parameters that it handed out, one batch of activations at
cut 1-1-1-1 is a linear system in the images, and in the mean and deviation of the batch norm.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from huscf_flwr.data.batches import BatchStream
from huscf_flwr.data.draws import seeded
from huscf_flwr.data.format import ImageFormat
from huscf_flwr.data.sources import find_sources, load_domain
from huscf_flwr.nets import NetSpec, initial_state, net_shapes
from huscf_flwr.procedure import advance
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.tensors import Tensors

SPEC = NetSpec(image_size=16, channels=1, num_classes=10, width=16)
CUT, BATCH = Cut(1, 1, 1, 1), 64


def rebuilt(sent: Tensor, handed_out: Tensors) -> tuple[Tensor, Tensor]:
    """Images (B, pixels) and labels (B,) behind a discriminator head's output (B, C, H, W)."""
    head = {name.removeprefix("disc.0."): v.double() for name, v in handed_out.items()}
    kernel, planes = head["layers.0.weight"], head["embedding.weight"]
    channels, pixels = len(kernel), planes.shape[1]
    side = int(pixels**0.5)

    def convolved(images: Tensor, channel: int) -> Tensor:
        parts = conv2d(images.view(-1, 1, side, side), kernel[:, [channel]], stride=2, padding=1)
        return parts.flatten(1)  # (n, outputs)

    unlabelled = convolved(torch.eye(pixels).double(), 0).T  # (outputs, pixels)
    label_parts = convolved(planes, 1).T  # (outputs, classes)
    # Back through LeakyReLU and the norm's weight and bias: deviation * x + mean is left unknown.
    x = torch.where(sent < 0, sent / 0.2, sent).double()
    x = (x - head["layers.1.bias"].view(-1, 1, 1)) / head["layers.1.weight"].view(-1, 1, 1)
    x = x.flatten(1)  # (B, outputs)
    by_channel = torch.eye(channels).double().repeat_interleave(x.shape[1] // channels, dim=0)
    # What no image explains, and then what no image and no label does, has to be zero.
    beside_images = _complement(unlabelled)
    beside_both = _complement(torch.cat([unlabelled, label_parts], dim=1))
    system = torch.cat(
        [
            torch.cat([beside_both @ (row[:, None] * by_channel), beside_both @ by_channel], dim=1)
            for row in x
        ]
    )
    unknown = torch.linalg.eigh(system.T @ system).eigenvectors[:, 0]
    unknown = unknown * unknown[:channels].sum().sign()  # deviations are positive
    deviation, mean = by_channel @ unknown[:channels], by_channel @ unknown[channels:]
    before_norm = x * deviation + mean  # but for one factor
    found, known = before_norm @ beside_images.T, (beside_images @ label_parts).T
    labels = torch.cosine_similarity(found[:, None], known[None], dim=2).argmax(dim=1)
    factor = (found * known[labels]).sum() / (found * found).sum()
    images = torch.linalg.lstsq(unlabelled, (factor * before_norm - label_parts.T[labels]).T)
    return images.solution.T, labels


def _complement(columns: Tensor) -> Tensor:
    """Orthonormal rows: the projection onto what is orthogonal to these columns."""
    left, values, _ = torch.linalg.svd(columns)
    return left[:, int((values > values[0] * 1e-9).sum()) :].T


def test_a_server_rebuilds_every_image_and_label_of_a_batch() -> None:
    (source,) = find_sources("digits", ".", data_root="data", download=False)
    data = load_domain(source, ImageFormat(16, 1, 10)).train
    shapes, handed_out = net_shapes(SPEC), initial_state(SPEC, 0)
    client = HeadsAndTails(SPEC, shapes, CUT, handed_out, learning_rate=2e-4, batch_size=BATCH)
    stream = BatchStream(data, batch_size=BATCH, latent_size=100, draws=seeded(0, 0))
    steps = client.iteration(stream[0])
    advance(steps)
    answer = torch.zeros(BATCH, *shapes.gen[CUT.gen(shapes).tail - 1])
    request = advance(steps, {"fake": answer})
    assert request is not None and Exchange.DISCRIMINATE == 1
    own = {name: v for name, v in handed_out.items() if name.startswith("disc.0.")}
    images, labels = rebuilt(request["real"], own)
    assert torch.equal(labels, stream[0].labels)
    error = (images - stream[0].images.flatten(1)).square().mean()
    assert 10 * torch.log10(4 / error) > 60  # dB, of values from -1 to 1
