import { fileURLToPath } from "node:url";

export default {
  basePath: "/school",
  i18n: { locales: ["en", "fr"], defaultLocale: "en" },
  serverExternalPackages: ["@grpc/grpc-js"],
  turbopack: { root: fileURLToPath(new URL("../../", import.meta.url)) },
};
