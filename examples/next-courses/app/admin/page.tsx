import type { Metadata } from "next";
import { pdp, requireForPage } from "@/lib/guard";
import { coursesOf } from "@/lib/store";

export const metadata: Metadata = { title: "Administration" };

export default async function AdminPage() {
  await requireForPage("admin:access"); // proxy.ts asked already, and is not relied upon
  const courses = await coursesOf(await pdp.plan("course:view", "course"));
  return (
    <>
      <h1>Administration</h1>
      <table>
        <caption>Who changed which course last</caption>
        <thead>
          <tr>
            <th scope="col">Course</th>
            <th scope="col">Taught by</th>
            <th scope="col">Changed by</th>
          </tr>
        </thead>
        <tbody>
          {courses.map(({ id, title, teacher, changedBy }) => (
            <tr key={id}>
              <th scope="row">{title}</th>
              <td>{teacher}</td>
              <td>{changedBy ?? "nobody"}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}
