export function getServerSideProps() {
  return { props: { text: "ADMINISTRATION" } };
}

export default function Page({ text }) {
  return <p>{text}</p>;
}
