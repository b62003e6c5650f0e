import { fileURLToPath } from "node:url";

export default {
  basePath: "/school",
  i18n: { locales: ["en", "fr"], defaultLocale: "en" },
  serverExternalPackages: ["@grpc/grpc-js"],
  experimental: { turbopackMinify: false, turbopackSourceMaps: false, serverSourceMaps: false }, // nobody downloads it
  turbopack: { root: fileURLToPath(new URL("../../", import.meta.url)) },
};
