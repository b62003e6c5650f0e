export default async function Page({ params }) {
  const { all } = await params;
  return <p>ANYTHING {all.join(" ")}</p>;
}
