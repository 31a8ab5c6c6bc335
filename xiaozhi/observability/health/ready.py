"""Whether this process should get devices. Cheap enough to be asked many times a second."""

from xiaozhi.conversation.services import Services
from xiaozhi.observability.health.upstreams import all_resting, voice_states


def not_ready_because(services: Services, *, draining: bool, no_room: str) -> str:
    """Why devices should go elsewhere, in a word or two; empty when they are welcome.

    The models are loaded before the port is opened, and behind every remote recogniser a local one stands in, so what
    is left to ask is whether there is room and whether any voice may be asked now. A chat model that cannot be reached
    does not count: the server then says so, and a balancer that took all servers out would leave devices with nothing.

    Args:
        services: of the process.
        draining: it is about to stop.
        no_room: why it takes no further device.
    """
    if draining:
        return "draining"
    if no_room:
        return no_room
    return "no voice" if all_resting([state.breaker for state in voice_states(services)]) else ""
