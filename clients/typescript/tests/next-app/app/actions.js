"use server";

import { Decision, Forbidden } from "../../src/index.js";
import { pdp } from "../guard.js";

const course = (id) => ({ type: "course", id });

export const edit = pdp.withGuardAction("course:edit", course, (actor, id) => ({ editedBy: actor.userId, id }));
export const adminOnly = pdp.withGuardAction("admin:access", null, () => ({ done: true }));
export const absent = pdp.withGuardAction(
  "course:view",
  () => null,
  () => ({ done: true }),
);
export const unsaid = pdp.withGuardAction(
  "course:view",
  () => undefined,
  () => ({ done: true }),
);
export const nested = pdp.withGuardAction("course:view", null, async () => {
  await pdp.require("admin:access");
  return { done: true };
});
export const broken = pdp.withGuardAction("course:view", null, () => {
  throw new Error("a secret of the application");
});
export const unverified = pdp.withGuardAction("course:view", null, () => {
  const stepUp = { factor: "second_factor", maxAgeSeconds: 540 };
  throw new Forbidden(new Decision({ allowed: false, denialKind: "forbidden", decisionId: "decision-2", stepUp }));
});
