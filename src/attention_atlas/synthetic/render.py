"""Images and exact masks from triangles, off-screen through VTK.

One `Renderer` per process, which reuses its two windows for all scenes. An image is rendered larger and
averaged down (driver-independent anti-aliasing); masks come from a second, flat pass without lights.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attention_atlas.errors import AtlasError
from attention_atlas.synthetic.mesh import Array, Material, Part
from attention_atlas.synthetic.textures import texture

SUPERSAMPLE = 2
OSMESA = ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")


@dataclass
class Light:
    """A distant light from `position` to `target` (metres) that casts shadows."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    strength: float = 0.8


@dataclass
class View:
    """The input of the renderer: solids by object id, a camera, lights."""

    solids: list[tuple[int, list[Part]]]
    camera: tuple[float, float, float]
    target: tuple[float, float, float]
    angle: float = 60.0  # vertical field of view, degrees
    lights: list[Light] = field(default_factory=list)
    ambient: float = 0.35
    background: tuple[float, float, float] = (0.1, 0.1, 0.1)


@dataclass
class Rendering:
    rgb: NDArray[np.uint8]  # (S, S, 3)
    ids: NDArray[np.int32]  # (S, S), object id of each pixel, -1 none
    whole: dict[int, int]  # pixels of each object within the frame, without occlusion


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _choose_window() -> None:
    """Make VTK render off-screen through EGL, without searching for an X server and warning about it.

    Raises AtlasError if no renderer is available, because VTK itself would end the process silently.
    """
    if os.environ.get("DISPLAY") or os.environ.get("VTK_DEFAULT_OPENGL_WINDOW"):
        return
    if _loads("libEGL.so.1"):
        os.environ["VTK_DEFAULT_OPENGL_WINDOW"] = "vtkEGLRenderWindow"
    elif sys.platform == "linux" and not any(
        map(_loads, ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"))
    ):
        raise AtlasError(
            "worlds: no OpenGL (no libEGL.so.1, no libOSMesa, no DISPLAY);"
            " install Mesa, e.g. apt-get install libegl1 libgl1-mesa-dri"
        )


class Renderer:
    def __init__(self, size: int) -> None:
        try:
            import vtkmodules.vtkRenderingOpenGL2 as opengl
            from vtkmodules.vtkRenderingCore import vtkRenderWindow
        except ImportError:
            raise AtlasError(
                "worlds: VTK is not installed; install the extra: pip install 'attention-atlas[worlds]'"
            ) from None
        self.size = size
        _choose_window()
        self._gl = opengl
        self._windows: list[Any] = []
        for pixels in (size * SUPERSAMPLE, size):
            window = vtkRenderWindow()
            window.SetOffScreenRendering(1)
            window.SetMultiSamples(0)
            window.SetSize(pixels, pixels)
            self._windows.append(window)

    def draw(self, view: View) -> Rendering:
        """Image, masks and unoccluded areas of a view."""
        return Rendering(self._rgb(view), *self._ids(view))

    def _rgb(self, view: View) -> NDArray[np.uint8]:
        from vtkmodules.vtkRenderingCore import vtkLight

        renderer = self._renderer(view)
        for light in view.lights:
            lamp = vtkLight()
            lamp.SetLightTypeToSceneLight()
            lamp.SetPositional(False)
            lamp.SetPosition(*light.position)
            lamp.SetFocalPoint(*light.target)
            lamp.SetColor(*light.color)
            lamp.SetIntensity(light.strength)
            renderer.AddLight(lamp)
        fill = vtkLight()  # softens the shadows; a headlight casts none
        fill.SetLightTypeToHeadlight()
        fill.SetIntensity(0.34)
        renderer.AddLight(fill)
        for actor in _painted(view):
            renderer.AddActor(actor)
        shadows = self._shadows()
        renderer.SetPass(shadows)
        pixels = self._shoot(0, renderer)
        shadows.ReleaseGraphicsResources(self._windows[0])
        s = self.size
        blocks = pixels.reshape(s, SUPERSAMPLE, s, SUPERSAMPLE, 3).astype(np.float32)
        return blocks.mean(axis=(1, 3)).round().astype(np.uint8)

    def _ids(self, view: View) -> tuple[NDArray[np.int32], dict[int, int]]:
        renderer = self._renderer(view)
        flat = {number: _flat(number, parts) for number, parts in view.solids}
        for actor in flat.values():
            renderer.AddActor(actor)
        ids = _decode(self._shoot(1, renderer))
        whole = {}
        for actor in flat.values():
            actor.SetVisibility(False)
        for number, actor in flat.items():
            actor.SetVisibility(True)
            whole[number] = int((_decode(self._shoot(1, renderer)) == number).sum())
            actor.SetVisibility(False)
        return ids, whole

    def _renderer(self, view: View) -> Any:
        renderer = self._gl.vtkOpenGLRenderer()
        renderer.SetAutomaticLightCreation(False)
        renderer.SetBackground(0.0, 0.0, 0.0)
        camera = renderer.GetActiveCamera()
        camera.SetPosition(*view.camera)
        camera.SetFocalPoint(*view.target)
        camera.SetViewUp(0, 0, 1)
        camera.SetViewAngle(view.angle)
        camera.SetClippingRange(0.1, 40.0)
        return renderer

    def _shadows(self) -> Any:
        shadows = self._gl.vtkShadowMapPass()
        shadows.GetShadowMapBakerPass().SetResolution(512)
        passes = self._gl.vtkRenderPassCollection()
        passes.AddItem(shadows.GetShadowMapBakerPass())
        passes.AddItem(shadows)
        sequence = self._gl.vtkSequencePass()
        sequence.SetPasses(passes)
        camera = self._gl.vtkCameraPass()
        camera.SetDelegatePass(sequence)
        return camera

    def _shoot(self, which: int, renderer: Any) -> NDArray[np.uint8]:
        """Pixels (S, S, 3), row 0 on top."""
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkCommonCore import vtkUnsignedCharArray

        window = self._windows[which]
        if not window.HasRenderer(renderer):
            window.GetRenderers().RemoveAllItems()
            window.AddRenderer(renderer)
        window.Render()
        side = window.GetSize()[0]
        data = vtkUnsignedCharArray()
        window.GetPixelData(0, 0, side - 1, side - 1, 0, data, 0)
        return vtk_to_numpy(data).reshape(side, side, 3)[::-1].copy()


def _decode(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    wide = pixels.astype(np.int32)
    return wide[..., 0] + wide[..., 1] * 256 - 1


def _flat(number: int, parts: list[Part]) -> Any:
    """An unlit actor whose colour is its object id + 1 (0 is the empty background)."""
    actor = _actor(*_joined(parts))
    code = number + 1
    if not 0 < code < 65536:
        raise AtlasError(f"scene: object id {number}: ids run from 0 to 65534; renumber the objects")
    surface = actor.GetProperty()
    surface.SetLighting(False)
    surface.SetColor((code % 256) / 255, (code // 256) / 255, 0)
    return actor


def _painted(view: View) -> list[Any]:
    """Actors of the image: plain surfaces joined by shine, textured ones by material."""
    groups: dict[Any, list[Part]] = defaultdict(list)
    for _, parts in view.solids:
        for part in parts:
            plain = part.material.pattern == "plain"
            material = part.material
            groups[(material.shine, material.glow) if plain else material].append(part)
    actors = []
    for key, parts in groups.items():
        points, normals, triangles, uv = *_joined(parts), np.vstack([p.uv for p in parts])
        colors = None
        if not isinstance(key, Material):
            colors = np.vstack([np.tile(p.material.color, (len(p.points), 1)) for p in parts])
        actor = _actor(points, normals, triangles, uv, colors)
        shine, glow = (key.shine, key.glow) if isinstance(key, Material) else key
        surface = actor.GetProperty()
        surface.SetInterpolationToPhong()
        surface.SetAmbient(min(view.ambient + glow, 1.0))
        surface.SetDiffuse(0.8)
        surface.SetSpecular(0.7 * shine)
        surface.SetSpecularPower(12 + 30 * shine)
        if isinstance(key, Material):
            actor.SetTexture(_texture(key))
        actors.append(actor)
    return actors


def _joined(parts: list[Part]) -> tuple[Array, Array, NDArray[np.int64]]:
    starts = np.cumsum([0] + [len(p.points) for p in parts[:-1]])
    triangles = np.vstack([p.triangles + s for p, s in zip(parts, starts, strict=True)])
    return np.vstack([p.points for p in parts]), np.vstack([p.normals for p in parts]), triangles


def _actor(
    points: Array,
    normals: Array,
    triangles: NDArray[np.int64],
    uv: Array | None = None,
    colors: Array | None = None,
) -> Any:
    from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
    from vtkmodules.vtkRenderingCore import vtkActor, vtkPolyDataMapper

    data = vtkPolyData()
    vertices = vtkPoints()
    vertices.SetData(numpy_to_vtk(points.astype(np.float32), deep=True))
    data.SetPoints(vertices)
    cells = vtkCellArray()
    offsets = numpy_to_vtkIdTypeArray(np.arange(0, triangles.size + 1, 3, dtype=np.int64), deep=True)
    cells.SetData(offsets, numpy_to_vtkIdTypeArray(triangles.ravel().astype(np.int64), deep=True))
    data.SetPolys(cells)
    data.GetPointData().SetNormals(numpy_to_vtk(normals.astype(np.float32), deep=True))
    if uv is not None:
        data.GetPointData().SetTCoords(numpy_to_vtk(uv.astype(np.float32), deep=True))
    if colors is not None:
        values = (np.clip(colors, 0, 1) * 255).round().astype(np.uint8)
        data.GetPointData().SetScalars(numpy_to_vtk(values, deep=True))
    mapper = vtkPolyDataMapper()
    mapper.SetInputData(data)
    mapper.SetScalarVisibility(colors is not None)
    actor = vtkActor()
    actor.SetMapper(mapper)
    # The shell of a room faces inwards; culling its back faces lets light in and the camera stay outside.
    actor.GetProperty().SetBackfaceCulling(True)
    return actor


def _texture(material: Material) -> Any:
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData
    from vtkmodules.vtkRenderingCore import vtkTexture

    image = texture(material)[::-1]
    data = vtkImageData()
    data.SetDimensions(image.shape[1], image.shape[0], 1)
    data.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(image).reshape(-1, 3), deep=True))
    result = vtkTexture()
    result.SetInputData(data)
    result.SetInterpolate(True)
    result.SetMipmap(True)
    result.SetRepeat(material.scale != 0)
    return result
