"""Memory bank of unit features, one slot a clip: where the k negatives of Eq. (1) come from."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nbkit.errors import NbkitError


class MemoryBank(nn.Module):
    """n_slots unit vectors of size dim, refreshed by a moving average and drawn from uniformly.

    Clip i of video n lives in slot n * slots_per_video + i. The bank is a buffer: it is saved with
    the model, moves with it, and never receives a gradient. Features of STCDA's Eq. (1); the
    conventions are those of CMC (uniform start in +-1/sqrt(dim/3), momentum 0.5, unit length after
    every update).

    n_slots: number of clips of both domains together. momentum: in [0, 1), weight of the old entry.
    seed: of the random start. slots_per_video: needed to leave out a whole video when drawing.
    exclude_self: leave the anchor's own slot out of its draws; False is the published habit, where
    an anchor can meet its own positive among its negatives (for 6834 slots and 1024 draws in 14 of
    100 anchors).
    """

    def __init__(
        self,
        n_slots: int,
        dim: int,
        momentum: float = 0.5,
        seed: int = 0,
        *,
        slots_per_video: int = 1,
        exclude_self: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise NbkitError(f"bank momentum={momentum} must lie in [0, 1)")
        if n_slots < 2 or n_slots % slots_per_video:
            raise NbkitError(
                f"n_slots={n_slots} must be at least 2, a multiple of slots_per_video={slots_per_video}"
            )
        self.momentum, self.slots_per_video, self.exclude_self = (
            momentum,
            slots_per_video,
            exclude_self,
        )
        bound = (dim / 3) ** -0.5
        start = (
            torch.rand(n_slots, dim, generator=torch.Generator().manual_seed(seed)) * 2 * bound
            - bound
        )
        self.register_buffer("memory", F.normalize(start, dim=-1))  # (n_slots, dim)
        self.memory: Tensor

    def __len__(self) -> int:
        return self.memory.shape[0]

    def draw_indices(
        self, exclude: Tensor, k: int, generator: torch.Generator, exclude_same_video: bool = False
    ) -> Tensor:
        """Slots drawn uniformly with replacement: exclude (N,) anchors' own slots -> (N, k) int64.

        exclude_same_video leaves out all slots of the anchor's video, otherwise only its own slot
        (nothing when the bank was built with exclude_self=False).
        """
        exclude = exclude.to(generator.device)
        width = self.slots_per_video if exclude_same_video else int(self.exclude_self)
        if width >= len(self):
            raise NbkitError(
                f"a bank of {len(self)} slots has nothing left to draw after leaving out {width}"
            )
        first = exclude // width * width if width else exclude  # (N,) first slot left out
        drawn = torch.randint(
            len(self) - width, (len(exclude), k), generator=generator, device=generator.device
        )  # (N, k) in a range with the block cut out, shifted over the gap next: exactly uniform
        drawn = drawn + width * (drawn >= first.unsqueeze(1))
        return drawn.to(self.memory.device)

    def draw(
        self, exclude: Tensor, k: int, generator: torch.Generator, exclude_same_video: bool = False
    ) -> Tensor:
        """Entries of `draw_indices`: exclude (N,) -> (N, k, dim), a copy without gradient."""
        return self.memory[self.draw_indices(exclude, k, generator, exclude_same_video)]

    def _last_writes(self, slots: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """A slot named twice keeps its last feature; index assignment alone leaves the winner
        undefined on a GPU.
        """
        if features.shape != (len(slots), self.memory.shape[1]):
            raise NbkitError(
                f"{len(slots)} slots need features ({len(slots)}, {self.memory.shape[1]}), "
                f"got {tuple(features.shape)}"
            )
        slots = slots.to(self.memory.device)
        unique, position = slots.unique(return_inverse=True)
        last = torch.zeros_like(unique).scatter_reduce(
            0, position, torch.arange(len(slots), device=slots.device), "amax", include_self=False
        )
        return unique, F.normalize(features.to(self.memory)[last], dim=-1)

    @torch.no_grad()
    def update(self, slots: Tensor, features: Tensor) -> None:
        """Mix unit features into their slots: slots (N,), features (N, dim); the other slots stay
        as they are.

        With momentum 0.5 the new entry is the normalised midpoint of the old entry and the feature.
        Opposite vectors have no midpoint: the feature then takes the slot.
        """
        slots, features = self._last_writes(slots, features.detach())
        mixed = self.momentum * self.memory[slots] + (1 - self.momentum) * features  # (N, dim)
        cancelled = mixed.norm(dim=-1, keepdim=True) < 1e-6
        self.memory[slots] = F.normalize(torch.where(cancelled, features, mixed), dim=-1)

    @torch.no_grad()
    def initialise(self, slots: Tensor, features: Tensor) -> None:
        """Overwrite slots with unit features, e.g. from a first forward pass: slots (N,), features
        (N, dim).
        """
        slots, features = self._last_writes(slots, features.detach())
        self.memory[slots] = features
