"""Lifecycle requests: those that do not fit the node's state are refused with a sentence.

Notable: rclpy raises where a transition does not exist in the present state, also in its own
service `change_state`. Nobody answers the client then, and whoever spins the node ends. So the
service is asked first, here, whether the transition exists.
"""

from __future__ import annotations

from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn


def guard(node: LifecycleNode) -> None:
    """Have `node` answer a request that does not fit its state: success false, and a warning."""
    service = node._service_change_state
    change = service.callback

    def on_request(request, response):
        reason = refusal(node, request.transition)
        if not reason:
            return change(request, response)
        node.get_logger().warning(reason)
        response.success = False
        return response

    service.callback = on_request


def refusal(node: LifecycleNode, transition) -> str:
    """Why `transition` (lifecycle_msgs/Transition) cannot be made now; "" if it can."""
    possible = {label: number for number, label, *_ in node._state_machine.available_transitions}
    # As rclpy does it: a label counts more than an id.
    label, number = transition.label, transition.id
    if label in possible if label else number in possible.values():
        return ""
    wanted = f"'{label}'" if label else f"with the id {number}"
    choice = ", ".join(f"{label} ({number})" for label, number in possible.items())
    return (f"the transition {wanted} was asked for and refused: the node is {state(node)}, from "
            f"where there {'is ' + choice if choice else 'is none'}")


def state(node: LifecycleNode) -> str:
    """Label of the node's lifecycle state."""
    return node._state_machine.current_state[1]


def start(node: LifecycleNode) -> bool:
    """Configure and activate; False where one of them fails.

    What a client has done in the meantime is not done again.
    """
    steps = {"unconfigured": node.trigger_configure, "inactive": node.trigger_activate}
    return all(state(node) != before or step() == TransitionCallbackReturn.SUCCESS
               for before, step in steps.items())
