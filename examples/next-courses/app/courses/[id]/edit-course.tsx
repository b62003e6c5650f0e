"use client";

import type { Refused } from "pdp-client/next";
import { Can } from "pdp-client/react";
import { useActionState } from "react";
import { renameCourse, type Saved } from "@/app/actions";
import { course } from "@/lib/course";

/** What is hidden here is guarded in `renameCourse`. The browser gets this form only where <Can> shows it. */
export function EditCourse({ id, title }: { id: string; title: string }) {
  const [state, save, pending] = useActionState(renameCourse.bind(null, id), null);
  return (
    <Can permission="course:edit" resource={course(id)}>
      <section id="edit" className="card" aria-labelledby="edit-heading">
        <h2 id="edit-heading">Edit</h2>
        <form action={save}>
          <label htmlFor="title">Title</label>
          <div className="row">
            <input id="title" name="title" defaultValue={title} key={title} required maxLength={80} />
            <button type="submit" className="button" disabled={pending}>
              Save
            </button>
          </div>
          <p role="status" className={state !== null && "saved" in state && state.saved ? "good" : "bad"}>
            {textOf(state)}
          </p>
        </form>
      </section>
    </Can>
  );
}

function textOf(state: Saved | Refused | null): string {
  if (state === null) return "";
  if ("saved" in state) return state.saved ? "Saved." : "That is not a title.";
  const { error, decisionId } = state.refused;
  if (error === "unauthenticated") return "You are no longer signed in.";
  if (error === "forbidden") return `You may not edit this course (decision ${decisionId}).`;
  return "Nothing was saved, because nobody can be asked whether you may. Try again.";
}
