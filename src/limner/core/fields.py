"""Numbers with a range: types for the fields of a recipe; one that cannot be is an error that names its field."""

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Below1 = Annotated[float, Field(ge=0, lt=1)]  # a probability or decay that must leave something
