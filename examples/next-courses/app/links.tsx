"use client";

import Link from "next/link";
import { Can } from "pdp-client/react";
import { course } from "@/lib/course";

export function EditLink({ id, title }: { id: string; title: string }) {
  return (
    <Can permission="course:edit" resource={course(id)} fallback={<span className="tag">Read only</span>}>
      <Link href={`/courses/${id}#edit`} className="button quiet" aria-label={`Edit ${title}`}>
        Edit
      </Link>
    </Can>
  );
}

export function AdminLink() {
  return (
    <Can permission="admin:access">
      <Link href="/admin" prefetch={false} className="button quiet">
        Administration
      </Link>
    </Can>
  );
}
