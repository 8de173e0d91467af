pub struct Draft;
pub struct Drafted;
