import type { NextConfig } from "next";

export default {
  // `forbidden()` and `unauthorized()`: pages that are answered with 403 and 401.
  experimental: { authInterrupts: true },
  poweredByHeader: false,
  reactStrictMode: true,
  serverExternalPackages: ["@grpc/grpc-js"],
} satisfies NextConfig;
