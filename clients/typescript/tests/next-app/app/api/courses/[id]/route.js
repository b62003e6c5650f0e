import { pdp } from "../../../../guard.js";

export const PUT = pdp.withGuard(
  "course:edit",
  ({ id }) => ({ type: "course", id }),
  async (request, { params, actor }) => {
    return Response.json({ id: (await params).id, actor: actor.userId, sent: await request.text() });
  },
);

export const OPTIONS = pdp.withGuard(
  "course:edit",
  ({ id }) => ({ type: "course", id }),
  () => new Response("of the application"),
);
