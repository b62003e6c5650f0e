import { RefusalPage } from "./refusal";

export default function Unauthorized() {
  return <RefusalPage title="Please sign in">This page is for people who are signed in.</RefusalPage>;
}
