"use server";

import { revalidatePath } from "next/cache";
import type { Refused } from "pdp-client/next";
import { course } from "@/lib/course";
import { pdp } from "@/lib/guard";
import { rename } from "@/lib/store";

export type Saved = { readonly saved: boolean };

export const renameCourse = pdp.withGuardAction(
  "course:edit",
  (id: string, _before: Saved | Refused | null, _form: FormData) => course(id),
  (actor, id, _before, form): Saved => {
    const saved = rename(id, form.get("title"), actor.userId) !== null;
    if (saved) revalidatePath("/", "layout");
    return { saved };
  },
);
