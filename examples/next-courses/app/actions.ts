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
  async (actor, id, _before, form): Promise<Saved> => {
    const saved = (await rename(id, form.get("title"), actor.userId)) !== null;
    if (saved) revalidatePath("/", "layout");
    return { saved };
  },
);
