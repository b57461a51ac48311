"""The base model's weights, for adapters that are a change of them only together with them."""

from functools import cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from plumbline.ablation.formats.names import layer_name
from plumbline.ablation.formats.tensors import BadAdapter, header
from plumbline.core.errors import UserError
from plumbline.core.files import visible_files

KEY = "ablation.adapters.base"


class Base:
    """The weights of a model in a `.safetensors` file or a folder of them, as diffusers saves one.

    Raises UserError, naming the config's key, when there are none or they cannot be read.
    """

    def __init__(self, path: Path) -> None:
        files = [path] if path.is_file() else visible_files(path) if path.is_dir() else []
        self.path = path
        self._places: dict[str, tuple[Path, str]] = {}
        for file in (file for file in files if file.suffix == ".safetensors"):
            try:
                names = header(file).shapes
            except BadAdapter as error:
                raise UserError(f"{KEY}: {file} {error}") from None
            for name in (name for name in names if name.endswith(".weight")):
                if self._places.setdefault(_joined(name.removesuffix(".weight")), (file, name)) != (file, name):
                    raise UserError(f"{KEY}: {path} holds {name} twice; name one model's folder or file")
        if not self._places:
            raise UserError(f"{KEY}: {path} holds no weights in .safetensors files; name the model's folder or file")
        self.weight = cache(self._weight)

    def _weight(self, module: str) -> np.ndarray:
        """The weight of a layer, (out, in) or (out, in, height, width), float64. Raises BadAdapter without one."""
        import torch  # reads bfloat16, which numpy does not know

        if (place := self._places.get(_joined(module))) is None:
            raise BadAdapter(f"adapts {module}, of which {KEY} ({self.path}) has no weight; name the model it adapts")
        file, name = place
        try:
            with safe_open(file, framework="pt") as opened:
                values: np.ndarray = opened.get_tensor(name).to(torch.float64).numpy()
        except (SafetensorError, OSError) as error:
            raise UserError(f"{KEY}: {file} cannot be read: {error}") from None
        return values


def _joined(name: str) -> str:
    """The layer's name with underscores for dots, since kohya's names do not say which is which."""
    return layer_name(name).replace(".", "_")
