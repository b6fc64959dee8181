"""Field types for recipes, validated when a recipe is read: numbers with a range, and names of registry entries."""

from typing import Annotated, Any, Union

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from limner.core.registry import Registry

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]  # a probability or decay; 1 would leave nothing to learn from


class ConfigOf:
    """Annotation of a field that holds the config of one registry entry, chosen by its `name`.

    The field's type is the union of all configs that are registered when the schema is built.

    >>> from limner.encoders import ENCODERS
    >>> "ResNetConfig" in [config.__name__ for config in ConfigOf(ENCODERS).configs]
    True
    """

    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry

    @property
    def configs(self) -> list[type]:
        """The config classes of all entries, in the order of registration."""
        return [getattr(entry, "config", entry) for entry in self.registry.values()]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        union = Union[tuple(self.configs)]  # type: ignore[valid-type]  # noqa: UP007  # known at run time only
        return handler.generate_schema(Annotated[union, Field(discriminator="name")])


class NameOf:
    """Annotation of a string field that holds the name of a registry entry.

    Validation raises UnknownName, a ValueError that lists the known names.
    """

    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check_name, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "enum": list(self.registry)}

    def _check_name(self, name: str) -> str:
        self.registry[name]  # raises UnknownName
        return name
