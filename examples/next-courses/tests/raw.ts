// Requests whose target is sent as it is; `fetch` would clean it.

import { connect } from "node:net";

export interface RawAnswer {
  /** 0: the connection ended without an answer. */
  readonly status: number;
  readonly head: string;
  readonly body: string;
}

const PATIENCE_MS = 20_000;

export function sendRaw(
  port: number,
  method: string,
  target: string,
  headers: readonly string[],
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    let text = "";
    socket.setEncoding("utf8");
    socket.setTimeout(PATIENCE_MS, () => socket.destroy(new Error(`no answer to ${method} ${target}`)));
    socket.on("data", (some) => {
      text += some;
    });
    socket.on("error", reject);
    socket.on("close", () => {
      const [head = "", ...rest] = text.split("\r\n\r\n");
      resolve({ status: Number(/^HTTP\/1\.1 (\d+)/.exec(head)?.[1] ?? 0), head, body: rest.join("\r\n\r\n") });
    });
    const lines = [`${method} ${target} HTTP/1.1`, "Host: courses.example", "Connection: close", ...headers];
    socket.write(Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"));
  });
}
