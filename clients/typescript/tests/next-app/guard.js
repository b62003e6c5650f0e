import { Guard } from "../src/index.js";
import { NextGuard } from "../src/next.js";

export const guard = new Guard(process.env.PDP_SERVER ?? "127.0.0.1:1", {
  apiKey: process.env.PDP_API_KEY,
  deadlineMs: 10_000,
});
export const pdp = new NextGuard(guard);
