import Link from "next/link";
import { PermissionsProvider } from "pdp-client/react";
import { course } from "@/lib/course";
import { pdp } from "@/lib/guard";
import { coursesOf } from "@/lib/store";
import { AdminLink, EditLink } from "./links";

export default async function CoursesPage() {
  const visible = await coursesOf(await pdp.plan("course:view", "course"));
  const permissions = await pdp.can([
    { permission: "admin:access" },
    ...visible.map(({ id }) => ({ permission: "course:edit", resource: course(id) })),
  ]);
  return (
    <PermissionsProvider permissions={permissions.toJSON()}>
      <div className="heading">
        <h1>Courses</h1>
        <AdminLink />
      </div>
      {visible.length === 0 && <p className="notice">There is no course that you may see. Are you signed in?</p>}
      <ul className="cards">
        {visible.map(({ id, title, teacher, summary }) => (
          <li key={id} className="card">
            <h2>
              <Link href={`/courses/${id}`}>{title}</Link>
            </h2>
            <p>{summary}</p>
            <p className="foot">
              <span>{teacher}</span>
              <EditLink id={id} title={title} />
            </p>
          </li>
        ))}
      </ul>
    </PermissionsProvider>
  );
}
