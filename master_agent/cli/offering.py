"""The first run of somebody who has no model to talk to: in a terminal one is offered that runs on this machine."""

from dataclasses import replace
from urllib.parse import urlsplit

from master_agent.cli import local, pulling, streams
from master_agent.cli.options import Options
from master_agent.cli.reach import NobodyError
from master_agent.embedded import installed
from master_agent.embedded.memory import gigabytes, total
from master_agent.errors import MasterAgentError
from master_agent.hub import suggested
from master_agent.settings import Settings


def accepted(error: MasterAgentError, options: Options, settings: Settings) -> Settings | None:
    """The settings with a model that was downloaded just now; None where nobody wants one, or can be asked."""
    if not isinstance(error, NobodyError) or options.for_programs or not (installed() and streams.interactive()):
        return None
    known = suggested(total())
    hub = urlsplit(settings.hf_endpoint).netloc
    streams.say(
        "There is no model to talk to yet. One can run on this machine, without a key and without sending your data "
        f"anywhere: {known.name}, a download of about {gigabytes(known.bytes)} from {hub}, once."
    )
    if not pulling.confirmed():  # nobody is asked anything, the hub included, before that
        return None
    try:
        model = pulling.fetched(settings, known.name, ask=False)
    except MasterAgentError as failed:
        streams.say(failed.message)
        return None
    return None if model is None else replace(settings, model=f"{local.DOWNLOADED}{model.name}")
