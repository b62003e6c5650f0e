import { RefusalPage } from "./refusal";

export default function NotFound() {
  return <RefusalPage title="No such page">There is nothing here.</RefusalPage>;
}
