"""The openai SDK. Importing this module imports it, so whoever needs it does so when it is needed, and only here.

The classes of its requests and answers are left out until they are looked up: we read the JSON ourselves, for what
compatible servers send does not always fit them, and they are more than half of the import (0.13 s of the processor
instead of 0.33 s after pydantic's; openai 3.51, Python 3.11, Linux).
"""

from master_agent.quick import importing
from master_agent.re_exports import when_looked_up

with importing(), when_looked_up("openai.types", "openai.lib"):
    import openai

__all__ = ["openai"]
