import type { Metadata } from "next";
import { requireForPage } from "@/lib/guard";
import { allCourses } from "@/lib/store";

export const metadata: Metadata = { title: "Administration" };

export default async function AdminPage() {
  await requireForPage("admin:access"); // proxy.ts asked already, and is not relied upon
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
          {allCourses().map(({ id, title, teacher, changedBy }) => (
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
