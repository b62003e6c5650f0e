// The application as it is built, in a real browser, before a real PDP.

import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { delimiter, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { APP, type Application, type Pdp, startApplication, startPdp } from "./processes.js";
import { sendRaw } from "./raw.js";

const SCREENSHOTS = `${APP}build/screenshots`;
/** What only the administration page says. */
const ADMINISTRATION = "Who changed which course last";

const executablePath = chromiumPath();
const required = process.env.PDP_BROWSER === "require";
const skip =
  executablePath === undefined &&
  !required &&
  "there is no Chromium: install Debian's chromium-headless-shell, or name one as PDP_CHROMIUM (PDP_BROWSER=require makes this a failure)";

function chromiumPath(): string | undefined {
  const named = process.env.PDP_CHROMIUM;
  if (named) return named;
  const folders = (process.env.PATH ?? "").split(delimiter);
  return ["chromium-headless-shell", "chromium"]
    .flatMap((program) => folders.map((folder) => join(folder, program)))
    .find(existsSync);
}

type Somebody = keyof Pdp["tokens"];

describe("the courses", { skip }, () => {
  let pdp: Pdp;
  let application: Application;
  let browser: Browser;

  before(async () => {
    assert.ok(executablePath, "PDP_BROWSER=require, and there is no chromium on the PATH");
    mkdirSync(SCREENSHOTS, { recursive: true });
    pdp = await startPdp();
    application = await startApplication(pdp);
    browser = await chromium.launch({ executablePath });
  });

  after(async () => {
    await browser?.close();
    await application?.end();
    await pdp?.end();
  });

  /** A browser of somebody's own, on a page. */
  async function opened(who: Somebody | null, path: string): Promise<Page> {
    const context = await browser.newContext({ viewport: { width: 1000, height: 640 } });
    if (who !== null) await signIn(context, who);
    const page = await context.newPage();
    await page.goto(application.url + path);
    return page;
  }

  async function signIn(context: BrowserContext, who: Somebody): Promise<void> {
    await context.addCookies([{ name: "__session", value: pdp.tokens[who], url: application.url }]);
  }

  /** What a handler answers to a script of the page. */
  async function putTitle(page: Page, id: string, title: string): Promise<{ status: number; body: Body }> {
    return page.evaluate(
      async ([path, body]) => {
        const answer = await fetch(path, { method: "PUT", body });
        return { status: answer.status, body: await answer.json() };
      },
      [`/api/courses/${id}`, JSON.stringify({ title })] as const,
    );
  }

  interface Body {
    readonly error?: string;
    readonly decision_id?: string;
    readonly title?: string;
  }

  async function titleOf(id: string): Promise<string> {
    const headers = { Authorization: `Bearer ${pdp.tokens.admin}` };
    const answer = await fetch(`${application.url}/api/courses/${id}`, { headers });
    const { title }: Body = await answer.json();
    assert.ok(title);
    return title;
  }

  it("shows an instructor what they may edit, and lets them save it", async () => {
    const page = await opened("instructor", "/");
    await page.screenshot({ path: `${SCREENSHOTS}/instructor-courses.png` });
    const edits = await page.getByRole("link", { name: /^Edit / }).allTextContents();
    assert.equal(edits.length, 2); // Biology is somebody else's
    await page.getByRole("link", { name: "Edit Latin" }).click();
    await page.getByLabel("Title").fill("Latin for beginners");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Saved.").waitFor();
    await page.getByRole("heading", { level: 1, name: "Latin for beginners" }).waitFor();
    await page.screenshot({ path: `${SCREENSHOTS}/instructor-course.png` });
    assert.equal(await titleOf("latin"), "Latin for beginners");
    const answer = await putTitle(page, "latin", "Latin");
    assert.deepEqual([answer.status, answer.body.title], [200, "Latin"]);
  });

  it("shows a student the courses, and nothing of editing, not even hidden", async () => {
    const page = await opened("student", "/");
    await page.screenshot({ path: `${SCREENSHOTS}/student-courses.png` });
    assert.equal(await page.getByRole("listitem").count(), 3);
    await page.getByRole("link", { name: "Algebra" }).click();
    await page.getByText("user_sam").waitFor();
    await page.screenshot({ path: `${SCREENSHOTS}/student-course.png` });
    for (const path of ["/", "/courses/algebra"]) {
      const answer = await page.goto(application.url + path);
      assert.equal(answer?.status(), 200);
      assert.doesNotMatch(await page.content(), /Edit\b|<form/);
      assert.doesNotMatch((await answer?.text()) ?? "", /Edit\b|<form/);
    }
  });

  it("refuses a student in the handler, and puts it on record", async () => {
    const page = await opened("student", "/courses/algebra");
    const { status, body } = await putTitle(page, "algebra", "Mine");
    assert.equal(status, 403);
    assert.deepEqual(Object.keys(body), ["error", "decision_id"]);
    assert.equal(body.error, "forbidden");
    const record = await pdp.recorded(body.decision_id ?? "");
    assert.match(JSON.stringify(record), /user_sam.*course:edit|course:edit.*user_sam/);
    assert.equal(await titleOf("algebra"), "Algebra");
  });

  it("refuses a student who sends an instructor's form, through whichever page", async () => {
    const instructor = await opened("instructor", "/courses/algebra");
    const sending = instructor.waitForRequest((request) => "next-action" in request.headers());
    await instructor.getByLabel("Title").fill("Algebra I");
    await instructor.getByRole("button", { name: "Save" }).click();
    const form = await sending;
    await instructor.getByText("Saved.").waitFor();
    const { "next-action": action = "", "content-type": type = "" } = form.headers();
    const headers = {
      "Next-Action": action,
      "Content-Type": type,
      Origin: application.url,
      Accept: "text/x-component",
    };
    const student = await opened("student", "/courses/algebra");
    for (const path of ["/courses/algebra", "/courses/biology", "/"]) {
      const data = Buffer.from((form.postDataBuffer() ?? Buffer.of()).toString().replace("Algebra I", "Stolen"));
      const answer = await student.request.post(application.url + path, { headers, data });
      const [, id = ""] =
        /"refused":\{"status":403,"error":"forbidden","decisionId":"([^"]+)"\}/.exec(await answer.text()) ?? [];
      assert.ok(await pdp.recorded(id), path);
      assert.equal(await titleOf("algebra"), "Algebra I");
    }
  });

  it("answers 401 to who is not signed in, and to an old session", async () => {
    for (const who of [null, "expired"] as const) {
      const page = await opened(who, "/");
      assert.equal(await page.getByRole("listitem").count(), 0);
      const { status, body } = await putTitle(page, "algebra", "Mine");
      assert.deepEqual([status, body.error], [401, "unauthenticated"]);
      const answer = await page.goto(`${application.url}/courses/algebra`);
      assert.equal(answer?.status(), 401);
      await page.getByRole("heading", { name: "Please sign in" }).waitFor();
    }
  });

  it("keeps the administration for administrators", async () => {
    const admin = await opened("admin", "/");
    await admin.getByRole("link", { name: "Administration" }).click();
    await admin.getByText(ADMINISTRATION).waitFor();
    await admin.screenshot({ path: `${SCREENSHOTS}/admin.png` });
    const student = await opened("student", "/");
    assert.equal(await student.getByRole("link", { name: "Administration" }).count(), 0);
    const answer = await student.goto(`${application.url}/admin`);
    assert.ok(answer);
    assert.equal(answer.status(), 403);
    assert.equal((await answer.json()).error, "forbidden");
  });

  const PATHS = [
    "/admin",
    "/admin/",
    "//admin",
    "/\\admin",
    "/./admin",
    "/x/../admin",
    "/x/%2e%2e/admin",
    "/courses/../admin",
    "/courses/..%2fadmin",
    "/courses/%2e%2e%2fadmin",
    "/courses/..;/admin",
    "/_next/static/../../admin",
    "/_next/static/%2e%2e/%2e%2e/admin",
    "/_next/static/..%2f..%2fadmin",
    "/%61dmin",
    "/%2561dmin",
    "/ADMIN",
    "/admin;x=1",
    "/admin%2f",
    "/%2fadmin",
    "/admin%00",
    "/admin%20",
    "/admin.rsc",
    "/admin.json",
    "/admin.segments/_tree.segment.rsc",
    "/admin.segments/admin/__PAGE__.segment.rsc",
    "/index.segments/admin/__PAGE__.segment.rsc",
    "/_next/data/build/admin.json",
    "/admin?_rsc=1",
    "/?nxtPpath=admin",
    "http://courses.example/admin",
    "http://elsewhere.example/admin",
    "admin",
  ];
  const HEADERS = [
    "x-middleware-subrequest: proxy:proxy:proxy:proxy:proxy",
    "x-middleware-subrequest: middleware:middleware:middleware:middleware:middleware",
    "x-middleware-subrequest: src/proxy:src/proxy:src/proxy:src/proxy:src/proxy",
    "x-middleware-next: 1",
    "x-middleware-rewrite: /admin",
    "x-middleware-invoke: 1",
    "x-middleware-override-headers: cookie",
    "x-matched-path: /admin",
    "x-invoke-path: /admin",
    "x-invoke-output: /admin",
    "x-now-route-matches: 1",
    "x-original-url: /admin",
    "x-rewrite-url: /admin",
    "x-nextjs-data: 1",
    "x-prerender-revalidate: 1",
    "x-action-forwarded: 1",
    "x-http-method-override: GET",
    "rsc: 1",
  ];

  it("shows the administration to nobody else, however its path is written", async () => {
    const cookie = (who: Somebody) => `Cookie: __session=${pdp.tokens[who]}`;
    const allowed = await sendRaw(application.port, "GET", "/admin", [cookie("admin")]);
    assert.equal(allowed.status, 200);
    assert.ok(allowed.body.includes(ADMINISTRATION));
    const tricks = [
      ...PATHS.map((path) => ({ path, header: [] as string[] })),
      ...HEADERS.flatMap((header) => ["/", "/admin"].map((path) => ({ path, header: [header] }))),
    ];
    for (const { path, header } of tricks) {
      for (const asker of [[], [cookie("student")]]) {
        const answer = await sendRaw(application.port, "GET", path, [...header, ...asker]);
        assert.ok(!answer.body.includes(ADMINISTRATION), `${path} ${header}`);
        if (!/^\/(\?|$)/.test(path)) assert.notEqual(answer.status, 200, `${path} ${header}`);
      }
    }
  });

  // The last: it stops the PDP.
  it("shows and saves nothing while the PDP gives no answer", async () => {
    const page = await opened("instructor", "/courses/algebra");
    await page.getByLabel("Title").fill("Unguarded");
    await pdp.stop();
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Nothing was saved").waitFor();
    const { status, body } = await putTitle(page, "algebra", "Unguarded");
    assert.deepEqual([status, body], [503, { error: "unavailable" }]);
    for (const path of ["/", "/courses/algebra"]) {
      await page.goto(application.url + path);
      await page.getByRole("heading", { name: "Not now" }).waitFor();
      assert.doesNotMatch(await page.content(), /Edit\b|<form/);
    }
    const answer = await page.goto(`${application.url}/admin`);
    assert.equal(answer?.status(), 503);
  });
});
