"""A control that answers only part of the contract, as all of it; for as long as there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lbcore.admin.contract import Control, ControlError, Json
from lbcore.admin.reading import check_version


def adapted(control: Any) -> Control:
    """The control itself once it has everything."""
    found: Control = control if hasattr(control, "patch_backend") else _Adapter(control)
    return found


class _Adapter:
    def __init__(self, control: Any) -> None:
        self._control = control

    def __getattr__(self, name: str) -> Any:
        return getattr(self._control, name)

    @property
    def plan_version(self) -> int:
        return int(getattr(getattr(self._control, "rollout", None), "version", 0))

    async def patch_backend(self, pool: str, name: str, patch: Mapping[str, Any],
                            expect: int | None) -> Json:
        check_version(expect, self.plan_version)
        shown: Json = {}
        for key, value in patch.items():
            match key:
                case "drain":
                    shown = await self._control.set_drain(pool, name, value)
                case "weight":
                    shown = await self._control.set_weight(pool, name, value)
                case _:
                    raise ControlError(409, f"{key} cannot be changed yet")
        return {"plan_version": self.plan_version, **shown}

    async def reload(self, expect: int | None = None) -> Json:
        check_version(expect, self.plan_version)
        found: Json = await self._control.reload()
        return found

    async def set_workers(self, count: int | None, expect: int | None = None) -> Json:
        check_version(expect, self.plan_version)
        found: Json = await self._control.set_workers(count)
        return {"plan_version": self.plan_version, **found}
