import { RefusalPage } from "./refusal";

export default function Forbidden() {
  return <RefusalPage title="Not for you">You are signed in, and may not see this page.</RefusalPage>;
}
