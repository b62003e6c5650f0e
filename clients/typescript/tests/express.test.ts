import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";

import cors from "cors";
import express, { type ErrorRequestHandler, type RequestHandler } from "express";

import { ExpressGuard } from "../src/express.js";
import { type Guard, type Resource, Routes } from "../src/index.js";
import { answering, byPermission, guarding, send } from "./kit.js";
import {
  CORS_ROUTES,
  guardsAmongThePublic,
  guardsBehindCors,
  guardsHandlers,
  judgesByTheMap,
  listening,
  logsRefusals,
  ROUTES,
  refusesTricks,
  refusesWithoutAnAnswer,
  type Web,
  withToken,
} from "./webs.js";

const plain: ErrorRequestHandler = (_error, _req, res, _next) => {
  res.status(500).send("broken");
};

async function site(t: TestContext, guard: Guard): Promise<Web> {
  const passed: string[] = [];
  const logged: string[] = [];
  const pdp = new ExpressGuard(guard, (text) => logged.push(text));
  const app = express();
  app.use(pdp.middleware(ROUTES));
  const course = (id: string): Resource => ({ type: "course", id });
  app.put(
    "/own/edit/:id",
    pdp.protect<{ id: string }>("course:allowed", (req) => course(req.params.id)),
    (req, res) => {
      res.send(req.actor?.userId);
    },
  );
  app.put(
    "/own/delete/:id",
    pdp.protect<{ id: string }>("course:delete", async (req) => course(req.params.id)),
    (req) => {
      passed.push(req.path);
    },
  );
  app.put("/own/list", pdp.protect("course:allowed"), (req, res) => {
    res.send(req.actor?.userId);
  });
  app.put("/own/bound/:id", async (req, res) => {
    res.send((await guard.of(req).require("course:allowed", course(req.params.id))).userId);
  });
  app.put("/own/thrown/:id", async (req, res) => {
    res.set({ "Content-Length": "7", ETag: "x" });
    await guard.of(req).require("course:delete", course(req.params.id));
    passed.push(req.path);
  });
  for (const none of [undefined, null]) {
    const absent = (() => none) as unknown as () => Resource;
    app.put(`/own/absent/${none}`, pdp.protect("course:allowed", absent), (req) => {
      passed.push(req.path);
    });
    assert.throws(() => pdp.protect("course:allowed", none as unknown as () => Resource), TypeError);
  }
  const broken = () => {
    throw new Error("no such course");
  };
  app.put("/own/broken", pdp.protect("course:allowed", broken), (req) => {
    passed.push(req.path);
  });
  app.put("/own/error", () => {
    throw new Error("of the application");
  });
  app.use((req, res) => {
    passed.push(`${req.method} ${req.path} ${req.actor === null ? null : req.actor?.userId}`);
    res.send("passed");
  });
  app.use(pdp.errors, plain);
  return { port: await listening(t, app), passed, logged };
}

test("Express lets pass what the map lets pass, as the verified actor", async (t) => {
  const pdp = await answering(t, byPermission);
  await judgesByTheMap(await site(t, guarding(t, pdp.address)), pdp);
});

test("no trick of a path comes to a handler of Express", async (t) => {
  await refusesTricks(await site(t, guarding(t, (await answering(t, byPermission)).address)));
});

test("no way of writing a path of Express comes to another handler", async (t) => {
  const pdp = new ExpressGuard(guarding(t, (await answering(t, byPermission)).address), () => {});
  const passed: string[] = [];
  const app = express();
  app.use(pdp.middleware(new Routes({ "/**": "public", "/admin/**": "admin:access" })));
  app.use("/admin", (_req, res) => {
    passed.push("admin");
    res.send("passed");
  });
  app.use((_req, res) => {
    passed.push("other");
    res.send("passed");
  });
  app.use(pdp.errors, plain);
  await guardsAmongThePublic({ port: await listening(t, app), passed, logged: [] });
});

test("handlers of Express ask by themselves, and their errors are answered", async (t) => {
  const pdp = await answering(t, byPermission);
  await guardsHandlers(await site(t, guarding(t, pdp.address)), pdp);
});

test("without a PDP nothing of Express but the public passes", async (t) => {
  await refusesWithoutAnAnswer(await site(t, guarding(t, "127.0.0.1:1", { deadlineMs: 100 })));
});

test("Express logs what the map refuses", async (t) => {
  await logsRefusals(await site(t, guarding(t, (await answering(t, byPermission)).address)));
});

test("a CORS layer before the guard of Express answers preflights, and nobody else does", async (t) => {
  const pdp = new ExpressGuard(guarding(t, (await answering(t, byPermission)).address), () => {});
  const passed: string[] = [];
  const app = express();
  app.use("/api", cors({ origin: "https://front.example" }));
  app.use(pdp.middleware(CORS_ROUTES));
  app.use("/wrong", cors());
  app.use((req, res) => {
    passed.push(req.method);
    res.send("passed");
  });
  await guardsBehindCors({ port: await listening(t, app), passed, logged: [] });
});

test("below a mount point of Express the whole path counts", async (t) => {
  const guard = guarding(t, (await answering(t, byPermission)).address);
  const pdp = new ExpressGuard(guard, () => {});
  const routes = new Routes({
    "/api/admin/**": "admin:access",
    "/admin/**": "public",
    "/api/open": "public",
    "/api": "public",
  });
  const inner = express();
  inner.use(pdp.middleware(routes));
  inner.use((req, res) => {
    res.send(`passed ${req.originalUrl}`);
  });
  const app = express();
  app.use("/api", inner);
  app.use("/router", express.Router().use(pdp.middleware(routes)));
  const port = await listening(t, app);
  for (const [path, status] of [
    ["/api/open", 200],
    ["/api/open?x=1", 200],
    ["/api", 200],
    ["/api?x", 200],
    ["/api/", 403],
    ["/API/open", 403],
    ["/api/admin/x", 403],
    ["/api/other", 403],
    ["/router/admin/x", 403],
  ] as const) {
    assert.equal((await send(port, withToken(`GET ${path}`))).status, status, path);
  }
});

test("a URL that was rewritten before the middleware of Express is refused", async (t) => {
  const guard = guarding(t, (await answering(t, byPermission)).address);
  const app = express();
  app.use((req, _res, next) => {
    if (req.url.startsWith("/old")) req.url = req.url.replace("/old", "/admin");
    next();
  });
  app.use(new ExpressGuard(guard, () => {}).middleware(new Routes({ "/old/**": "public", "/new": "public" })));
  app.use((_req, res) => {
    res.send("passed");
  });
  const port = await listening(t, app);
  assert.equal((await send(port, "GET /old/x")).status, 403);
  assert.equal((await send(port, "GET /new")).status, 200);
});

test("a path or a method that changes behind the middleware of Express is refused and logged", async (t) => {
  const guard = guarding(t, (await answering(t, byPermission)).address);
  const logged: string[] = [];
  const pdp = new ExpressGuard(guard, (text) => logged.push(text));
  const passed: string[] = [];
  const pass: RequestHandler = (req, res) => {
    passed.push(`${req.method} ${req.baseUrl}${req.path}`);
    res.send("passed");
  };
  const app = express();
  app.use(pdp.middleware(new Routes({ "/**": "public", "/admin": "admin:access", "DELETE /x": "admin:access" })));
  app.use((req, _res, next) => {
    const { "x-to": to, "x-method": method } = req.headers;
    if (typeof to === "string") req.url = to;
    if (typeof method === "string") req.method = method;
    next();
  });
  // A proxy rewrites what it sends on, and calls no handler.
  app.use("/proxied", (req, res) => {
    req.url = "/admin";
    res.send(req.url);
  });
  // What is rewritten within a router, and finds no handler there, goes on as it was.
  app.use(
    "/inner",
    express.Router().use((req, _res, next) => {
      req.url = "/admin";
      next();
    }),
  );
  app.all("/admin", pass);
  app.delete("/x", pass);
  app.use(pass, pdp.errors);
  const port = await listening(t, app);
  for (const [head, status] of [
    ["GET /x HTTP/1.1\r\nX-To: /admin\r\n", 403],
    ["GET /x/admin HTTP/1.1\r\nX-To: /admin\r\n", 403],
    ["POST /x HTTP/1.1\r\nX-Method: DELETE\r\n", 403],
    ["GET /proxied/x", 200],
    ["POST /x HTTP/1.1\r\nX-Method: POST\r\n", 200],
    ["GET /inner/x?y", 200],
  ] as const) {
    assert.equal((await send(port, head)).status, status, head);
  }
  assert.deepEqual(passed, ["POST /x", "GET /inner/x"]);
  assert.deepEqual(logged, [
    "route refused: ambiguous_path (GET /x)",
    "route refused: ambiguous_path (GET /x/admin)",
    "route refused: ambiguous_path (POST /x)",
  ]);
});

test("an error of a guard after the answer has begun ends the connection", async (t) => {
  const guard = guarding(t, (await answering(t, byPermission)).address);
  const app = express();
  app.get("/", async (req, res) => {
    res.write("half");
    await guard.of(req).require("course:delete");
    res.end("all");
  });
  const handedOn: string[] = [];
  const note: ErrorRequestHandler = (error, _req, _res, next) => {
    handedOn.push(error.name);
    next(error);
  };
  app.set("env", "test"); // Express prints no error
  app.use(new ExpressGuard(guard, () => {}).errors, note);
  const port = await listening(t, app);
  const received = await send(port, withToken("GET /")).catch(() => null);
  assert.ok(!received?.body.includes("all"));
  assert.deepEqual(handedOn, ["Forbidden"]);
});
