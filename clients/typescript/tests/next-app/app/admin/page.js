import { headers } from "next/headers";
import { adminOnly } from "../actions";

// Only the proxy stands before it, which is what applications must not do.
export default async function Page() {
  await headers();
  return (
    <form action={adminOnly}>
      <p>ADMINISTRATION</p>
    </form>
  );
}
