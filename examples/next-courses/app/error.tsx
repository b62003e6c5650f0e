"use client";

import { RefusalPage } from "./refusal";

/** Also where the PDP gives no answer: then nothing is shown of which nobody can say whether it may be. */
export default function Failure() {
  return <RefusalPage title="Not now">This page cannot be shown at the moment. Please try again.</RefusalPage>;
}
