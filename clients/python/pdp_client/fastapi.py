"""The guard as a dependency of FastAPI.

protect(app, guard)

@app.put("/courses/{course_id}")
def edit(actor: Annotated[Actor, Depends(Requires("course:edit", course))]) -> ...
"""

from starlette.requests import HTTPConnection

from pdp_client.adapting import ResourceOf, question
from pdp_client.starlette import AsgiGuard, GuardMiddleware, protect
from pdp_client.values import Actor

__all__ = ["GuardMiddleware", "Requires", "protect"]


class Requires:
    """A dependency: gives the actor who may, and refuses everybody else. Of the application that
    was given to `protect`."""

    def __init__(self, permission: str, resource: ResourceOf | None = None) -> None:
        """`resource` gets the Request, or the WebSocket."""
        self._permission = permission
        self._resource = resource

    async def __call__(self, connection: HTTPConnection) -> Actor:
        guard: AsgiGuard = connection.app.state.pdp
        asked = question(self._permission, self._resource, connection)
        return await guard.require(connection.scope, asked)
