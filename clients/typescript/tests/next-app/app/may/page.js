import { pdp } from "../../guard.js";
import { absent, broken, edit, nested, unsaid } from "../actions";

const course = { type: "course", id: "algebra" };

export default async function Page() {
  const set = await pdp.can([{ permission: "course:edit", resource: course }, { permission: "course:view" }]);
  return (
    <>
      <pre>{JSON.stringify(set)}</pre>
      <form action={absent} />
      <form action={broken} />
      <form action={edit} />
      <form action={nested} />
      <form action={unsaid} />
    </>
  );
}
