/** Says whose {@code org.crac} an application finds. */
public class Which {
    public static void main(String[] arguments) {
        try {
            Class<?> core = Class.forName("org.crac.Core");
            System.out.println("from " + core.getProtectionDomain().getCodeSource().getLocation().getPath());
        } catch (ClassNotFoundException e) {
            System.out.println("none");
        }
    }
}
