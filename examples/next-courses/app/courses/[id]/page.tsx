import Link from "next/link";
import { notFound } from "next/navigation";
import { PermissionsProvider } from "pdp-client/react";
import { course } from "@/lib/course";
import { pdp, requireForPage } from "@/lib/guard";
import { courseOf } from "@/lib/store";
import { EditCourse } from "./edit-course";

export default async function CoursePage({ params }: { params: Promise<{ id: string }> }) {
  const id = decodeURIComponent((await params).id);
  const actor = await requireForPage("course:view", course(id));
  const found = await courseOf(id);
  if (found === null) notFound();
  const permissions = await pdp.permissions(course(id));
  return (
    <PermissionsProvider permissions={permissions.toJSON()}>
      <p className="crumb">
        <Link href="/">All courses</Link>
      </p>
      <h1>{found.title}</h1>
      <p className="lead">{found.summary}</p>
      <dl className="facts">
        <dt>Taught by</dt>
        <dd>{found.teacher}</dd>
        <dt>Signed in as</dt>
        <dd>
          <code>{actor.userId}</code>
        </dd>
      </dl>
      <EditCourse id={found.id} title={found.title} />
    </PermissionsProvider>
  );
}
