import assert from "node:assert/strict";
import type { Server } from "node:net";
import { mock, type TestContext, test } from "node:test";

import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { cors } from "hono/cors";
import { HTTPException } from "hono/http-exception";

import { HonoGuard, type RoutedEnv } from "../src/hono.js";
import { type Guard, type Resource, Routes } from "../src/index.js";
import { answering, byPermission, guarding, send } from "./kit.js";
import {
  CORS_ROUTES,
  guardsAmongThePublic,
  guardsBehindCors,
  guardsHandlers,
  judgesByTheMap,
  logsRefusals,
  portOf,
  ROUTES,
  refusesTricks,
  refusesWithoutAnAnswer,
  type Web,
  withToken,
} from "./webs.js";

function serving(t: TestContext, app: Pick<Hono, "fetch">): Promise<number> {
  return portOf(t, serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" }) as Server);
}

async function site(t: TestContext, guard: Guard): Promise<Web> {
  mock.method(console, "error", () => {}); // of Hono and its server, about errors of the application
  t.after(() => mock.restoreAll());
  const passed: string[] = [];
  const logged: string[] = [];
  const pdp = new HonoGuard(guard, (text) => logged.push(text));
  const app = new Hono<RoutedEnv>();
  app.use(pdp.middleware(ROUTES));
  const course = (id: string): Resource => ({ type: "course", id });
  app.put(
    "/own/edit/:id",
    pdp.protect<"/own/edit/:id">("course:allowed", (c) => course(c.req.param("id"))),
    (c) => c.text(c.var.actor.userId),
  );
  app.put(
    "/own/delete/:id",
    pdp.protect<"/own/delete/:id">("course:delete", async (c) => course(c.req.param("id"))),
    (c) => {
      passed.push(c.req.path);
      return c.text("passed");
    },
  );
  app.put("/own/list", pdp.protect("course:allowed"), (c) => c.text(c.var.actor.userId));
  app.put("/own/bound/:id", async (c) => {
    const actor = await guard.of(c.req.raw).require("course:allowed", course(c.req.param("id")));
    return c.text(actor.userId);
  });
  app.put("/own/thrown/:id", async (c) => {
    await guard.of(c.req.raw).require("course:delete", course(c.req.param("id")));
    passed.push(c.req.path);
    return c.text("passed");
  });
  for (const none of [undefined, null]) {
    const absent = (() => none) as unknown as () => Resource;
    app.put(`/own/absent/${none}`, pdp.protect("course:allowed", absent), (c) => {
      passed.push(c.req.path);
      return c.text("passed");
    });
    assert.throws(() => pdp.protect("course:allowed", none as unknown as () => Resource), TypeError);
  }
  const broken = () => {
    throw new Error("no such course");
  };
  app.put("/own/broken", pdp.protect("course:allowed", broken), (c) => {
    passed.push(c.req.path);
    return c.text("passed");
  });
  app.put("/own/error", () => {
    throw new Error("of the application");
  });
  app.all("*", (c) => {
    passed.push(`${c.req.raw.method} ${new URL(c.req.url).pathname} ${c.var.actor?.userId ?? null}`);
    return c.text("passed");
  });
  app.onError(pdp.errors);
  return { port: await serving(t, app), passed, logged };
}

test("Hono lets pass what the map lets pass, as the verified actor", async (t) => {
  const pdp = await answering(t, byPermission);
  await judgesByTheMap(await site(t, guarding(t, pdp.address)), pdp);
});

test("no trick of a path comes to a handler of Hono", async (t) => {
  await refusesTricks(await site(t, guarding(t, (await answering(t, byPermission)).address)));
});

test("no way of writing a path of Hono comes to another handler", async (t) => {
  const pdp = new HonoGuard(guarding(t, (await answering(t, byPermission)).address), () => {});
  for (const strict of [true, false]) {
    const passed: string[] = [];
    const app = new Hono({ strict });
    app.use(pdp.middleware(new Routes({ "/**": "public", "/admin/**": "admin:access" })));
    app.all("/admin/*", (c) => {
      passed.push("admin");
      return c.text("passed");
    });
    app.all("*", (c) => {
      passed.push(/admin/i.test(decodeURIComponent(c.req.path)) ? "admin by another name" : "other");
      return c.text("passed");
    });
    await guardsAmongThePublic({ port: await serving(t, app), passed, logged: [] });
  }
});

test("handlers of Hono ask by themselves, and their errors are answered", async (t) => {
  const pdp = await answering(t, byPermission);
  await guardsHandlers(await site(t, guarding(t, pdp.address)), pdp);
});

test("without a PDP nothing of Hono but the public passes", async (t) => {
  await refusesWithoutAnAnswer(await site(t, guarding(t, "127.0.0.1:1", { deadlineMs: 100 })));
});

test("Hono logs what the map refuses", async (t) => {
  await logsRefusals(await site(t, guarding(t, (await answering(t, byPermission)).address)));
});

test("a CORS layer before the guard of Hono answers preflights, and nobody else does", async (t) => {
  const pdp = new HonoGuard(guarding(t, (await answering(t, byPermission)).address), () => {});
  const passed: string[] = [];
  const app = new Hono();
  app.use("/api/*", cors({ origin: "https://front.example" }));
  app.use(pdp.middleware(CORS_ROUTES));
  app.use("/wrong/*", cors());
  app.all("*", (c) => {
    passed.push(c.req.method);
    return c.text("passed");
  });
  await guardsBehindCors({ port: await serving(t, app), passed, logged: [] });
});

test("in a group of Hono the whole path counts, and in a mounted application nothing passes", async (t) => {
  const pdp = new HonoGuard(guarding(t, (await answering(t, byPermission)).address), () => {});
  const routes = new Routes({
    "/api/admin/**": "admin:access",
    "/admin/**": "public",
    "/api/open": "public",
    "/open": "public",
  });
  const inner = new Hono().use(pdp.middleware(routes)).all("*", (c) => c.text("passed"));
  const app = new Hono().route("/api", inner).mount("/mounted", inner.fetch);
  const port = await serving(t, app);
  for (const [path, status] of [
    ["/api/open", 200],
    ["/api/admin/x", 403],
    ["/api/other", 403],
    ["/mounted/open", 403],
    ["/mounted/admin/x", 403],
  ] as const) {
    assert.equal((await send(port, withToken(`GET ${path}`))).status, status, path);
  }
});

test("where Hono reads paths in a way of its own, nothing passes", async (t) => {
  const pdp = new HonoGuard(guarding(t, "127.0.0.1:1"), () => {});
  const app = new Hono({ getPath: (request) => request.url.replace(/^https?:\//, "") });
  app.use(pdp.middleware(new Routes({ "/**": "public" }))).all("*", (c) => c.text("passed"));
  assert.equal((await send(await serving(t, app), "GET /x")).status, 403);
  assert.equal((await app.request("/x")).status, 403);
});

test("where another server tells no target, the URL of the request counts", async (t) => {
  const guard = guarding(t, (await answering(t, byPermission)).address);
  const app = new Hono().use(new HonoGuard(guard, () => {}).middleware(ROUTES)).all("*", (c) => c.text("passed"));
  const headers = { Authorization: "Bearer a.b.c" };
  for (const [path, status] of [
    ["/healthz?x", 200],
    ["/courses/1", 200],
    ["/x/../healthz", 200], // a Request has no other path than /healthz
    ["//healthz", 403],
    ["/%68ealthz", 403],
    ["/admin/x", 403],
  ] as const) {
    assert.equal((await app.request(path, { headers })).status, status, path);
  }
  assert.equal((await app.request("/healthz", { method: "get" })).status, 200); // Request makes it GET
  assert.equal((await app.request("/own/x", { method: "patch" })).status, 403);
});

test("what Hono answers by itself it still answers", async () => {
  const app = new Hono();
  app.get("/teapot", () => {
    throw new HTTPException(418, { message: "short and stout" });
  });
  app.onError(new HonoGuard({} as Guard).errors);
  const answer = await app.request("/teapot");
  assert.deepEqual([answer.status, await answer.text()], [418, "short and stout"]);
});
