import java.io.IOException;
import java.net.InetAddress;
import java.net.Socket;
import javax.management.MBeanServerConnection;
import javax.management.ObjectName;
import javax.management.remote.JMXConnector;
import javax.management.remote.JMXConnectorFactory;
import javax.management.remote.JMXServiceURL;

/** {@code Jmx PORT}: looks in its hooks whether the JVM's own JMX agent listens there. */
public final class Jmx {
    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        Life.register(
                () -> Life.check(listens(port), "stopped before the hooks"),
                () -> Life.check(listens(port), "not started before the hooks"));
        Life.ready();
        Life.eventually("the end", () -> Life.hear().equals("end"));
        Life.verdict();
    }

    private static boolean listens(int port) {
        try (Socket socket = new Socket(InetAddress.getLoopbackAddress(), port)) {
            return socket.isConnected();
        } catch (IOException e) {
            return false;
        }
    }

    /** {@code Jmx$Client PORT}: asks the JVM there when it was restored; stays until its input ends. */
    public static final class Client {
        public static void main(String[] args) throws Exception {
            String url = "service:jmx:rmi:///jndi/rmi://127.0.0.1:" + args[0] + "/jmxrmi";
            JMXConnector connector = JMXConnectorFactory.connect(new JMXServiceURL(url));
            MBeanServerConnection server = connector.getMBeanServerConnection();
            ObjectName name = new ObjectName("jdk.management:type=CRaC");
            long time = (long) server.getAttribute(name, "RestoreTime");
            System.out.println(time < 0 ? "original" : "copy");
            while (System.in.read() >= 0) {}
            // Not closed first: the other side may have done so.
            System.exit(0);
        }
    }
}
