import { course } from "@/lib/course";
import { pdp } from "@/lib/guard";
import { courseOf, rename } from "@/lib/store";

type Params = { id: string };

export const GET = pdp.withGuard<Params>(
  "course:view",
  ({ id }) => course(id),
  async (_, { params }) => {
    const found = await courseOf((await params).id);
    return found ? Response.json(found) : Response.json({ error: "not_found" }, { status: 404 });
  },
);

export const PUT = pdp.withGuard<Params>(
  "course:edit",
  ({ id }) => course(id),
  async (request, { params, actor }) => {
    const sent: { title?: unknown } | null = await request.json().catch(() => null);
    const renamed = await rename((await params).id, sent?.title, actor.userId);
    return renamed ? Response.json(renamed) : Response.json({ error: "invalid" }, { status: 400 });
  },
);
