// Opens a gRPC connection from a target and credentials.

import { readFileSync } from "node:fs";
import { BlockList, isIP } from "node:net";
import { ChannelCredentials, type ChannelOptions, Client, Metadata } from "@grpc/grpc-js";

import { nameOf } from "./values.js";

/** TLS to the PDP. Each field is a path to a PEM file, or the PEM itself as a Buffer. */
export interface TlsOptions {
  /** The trusted authorities; left out: Node's default roots. */
  readonly ca?: string | Buffer | undefined;
  /** This caller's certificate chain, for mTLS. */
  readonly cert?: string | Buffer | undefined;
  /** The private key of `cert`. */
  readonly key?: string | Buffer | undefined;
}

/** The connection to the PDP. */
export interface ConnectionOptions {
  readonly tls?: TlsOptions | undefined;
  /** Sent as `authorization: Bearer ...`; authenticates this caller, not the actor. */
  readonly apiKey?: string | undefined;
  /** Lets tokens and the key leave this machine in clear text, if something else encrypts them. */
  readonly insecure?: boolean | undefined;
}

const OPTIONS: ChannelOptions = {
  "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
  // A DNS TXT record must not change how we retry or balance; the guard retries itself.
  "grpc.service_config_disable_resolution": 1,
  "grpc.enable_retries": 0,
  // A dead connection is detected within 35 s.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  // Guards do not share connections: what one learned about an address is not for another, and closing it ends
  // them.
  "grpc.use_local_subchannel_pool": 1,
  // gRPC's defaults of 1 s and 120 s are long compared with a deadline of 250 ms.
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 2_000,
  // A rollout changes the addresses one by one; by default a name is resolved again after 30 s at the earliest.
  "grpc.dns_min_time_between_resolutions_ms": 1_000,
  // An environment variable must not send tokens to a proxy.
  "grpc.enable_http_proxy": 0,
  // A thousand answers are a tenth of this.
  "grpc.max_receive_message_length": 4 * 1024 * 1024,
};
const API_KEY = /^[\x21-\x7e]{1,4096}$/;
const PORT_DEFAULT = "443";

/**
 * A connection that balances over all addresses of a target and connects at its first call. Throws TypeError and
 * RangeError for invalid options, and whatever reading PEM files throws.
 */
export function connect(target: string, { tls, insecure }: ConnectionOptions): Client {
  if (typeof target !== "string") throw new TypeError(`the target is a string, not ${nameOf(target)}`);
  if (insecure !== undefined && typeof insecure !== "boolean") throw new TypeError("insecure is true or false");
  const where = parseTarget(target);
  if (tls === undefined && insecure !== true && !where.loopback) {
    throw new RangeError(
      `${target} is beyond loopback, tokens and API keys would cross in clear text; ` +
        "give tls, or say insecure: true",
    );
  }
  const credentials = tls === undefined ? ChannelCredentials.createInsecure() : tlsCredentials(tls);
  return new Client(where.dial, credentials, OPTIONS);
}

/** The metadata of each call that authenticates this caller. Throws RangeError for an invalid key. */
export function callerMetadata(apiKey: string | undefined): Metadata {
  const metadata = new Metadata();
  if (apiKey === undefined) return metadata;
  if (typeof apiKey !== "string" || !API_KEY.test(apiKey)) {
    // Checked here and reported without the value: gRPC would repeat it in its own error.
    throw new RangeError("apiKey must be 1 to 4096 printable ASCII characters without spaces");
  }
  metadata.set("authorization", `Bearer ${apiKey}`);
  return metadata;
}

function tlsCredentials(tls: TlsOptions): ChannelCredentials {
  if (typeof tls !== "object" || tls === null) throw new TypeError(`tls is an object, not ${nameOf(tls)}`);
  if ((tls.cert === undefined) !== (tls.key === undefined)) {
    throw new TypeError("give cert and key together, or neither");
  }
  return ChannelCredentials.createSsl(pem(tls.ca), pem(tls.key), pem(tls.cert));
}

function pem(source: string | Buffer | undefined): Buffer | null {
  if (source === undefined) return null;
  if (Buffer.isBuffer(source)) return source;
  if (typeof source !== "string" || source.includes("-----BEGIN")) {
    // Opening the PEM as a path would put a private key into the text of an error.
    throw new TypeError("PEM text is given as a Buffer; a string is a path");
  }
  return readFileSync(source);
}

/** The address for gRPC, and whether every address is on this machine. */
interface Where {
  readonly dial: string;
  readonly loopback: boolean;
}

/** Parses every form here, so that the checked address is the dialled one. */
function parseTarget(target: string): Where {
  const [, scheme, rest] = /^(unix|ipv4|ipv6|dns):(.*)$/s.exec(target) ?? [];
  if (scheme === "unix") return { dial: target, loopback: true };
  if (scheme === "ipv4" || scheme === "ipv6")
    return parseAddresses(scheme, (rest as string).replace(/^\/\/\//, ""));
  const name = scheme === "dns" ? (rest as string).replace(/^\/\/\//, "") : target;
  if (name.startsWith("//")) {
    throw new RangeError(`${target} names a DNS server, but only the system's is used: write dns:///host:port`);
  }
  if (name.includes("/")) throw new RangeError(`${target} is not host:port, dns:, ipv4:, ipv6: or unix:`);
  const { host, port } = splitPort(name);
  return { dial: `dns:///${joinPort(host, port)}`, loopback: isLoopback(host) };
}

function parseAddresses(scheme: "ipv4" | "ipv6", list: string): Where {
  const addresses = list.split(",").map((address) => {
    const { host, port } = splitPort(address);
    if (isIP(host) !== (scheme === "ipv4" ? 4 : 6)) throw new RangeError(`${address} is not an ${scheme} address`);
    return { host, port };
  });
  return {
    dial: `${scheme}:${addresses.map(({ host, port }) => joinPort(host, port)).join(",")}`,
    loopback: addresses.every(({ host }) => isLoopback(host)),
  };
}

function splitPort(address: string): { host: string; port: string } {
  if (isIP(address) === 6) return { host: address, port: PORT_DEFAULT };
  const [, bracketed, plain, port = PORT_DEFAULT] =
    /^(?:\[([^\]]+)\]|([^[\]:/@?#%\s,]+))(?::([0-9]{1,5}))?$/.exec(address) ?? [];
  const host = plain ?? (bracketed !== undefined && isIP(bracketed) === 6 ? bracketed : undefined);
  if (host === undefined || Number(port) > 65_535) throw new RangeError(`${address} is not host:port`);
  return { host, port };
}

function joinPort(host: string, port: string): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

function isLoopback(host: string): boolean {
  const family = isIP(host);
  return host === "localhost" || (family !== 0 && LOOPBACK.check(host, family === 4 ? "ipv4" : "ipv6"));
}
